"""Statements -> operations: what policy sees of a text, and whose data may come out of it.  Pure.

`analysis.analyse` reads the text with PostgreSQL's own grammar (libpg_query through pglast) and walks the parse tree:
every relation that is read or written anywhere in it (CTEs, subqueries, MERGE, RETURNING, EXPLAIN, PREPARE) becomes a
request, and so does every function that is not known to be harmless.  What is not understood is DDL on the database:
denied unless a policy names it.

The rooms, each importing only from those before it:

    words        what is said of a text: Meaning, Statement, Analysis, Refused
    tree         ways through a parse tree
    redaction    what of a text is recorded
    reader       Reader: what all that read a statement share: names, requests, what was found
    literals     which constants and parameters are not recorded
    lineage      whose data may come out of a statement
    calls        functions, and what calls one without looking like it
    queries      SELECT, INSERT, UPDATE, DELETE, MERGE, COPY, TRUNCATE
    session      settings, transactions, cursors, locks, notifications
    definitions  DDL and administration
    statements   every kind of statement and who reads it; those that hold or run another
    analysis     a text as a whole
"""
