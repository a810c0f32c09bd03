"""The catalogue, read from a real server: labels and where they go, what a name may mean, bounds."""
from __future__ import annotations

import re
import subprocess

import pytest

from agent.contract.credential import Credential
from agent.contract.target import ColumnLabel
from enforcer.protocols.postgresql import catalogue as reading
from enforcer.protocols.postgresql.catalogue import Catalogue, load_catalogue
from enforcer.protocols.postgresql.functions import harmless, is_large_object

SQL = """
CREATE SCHEMA books AUTHORIZATION app;
SET ROLE app;
SET search_path = books;
CREATE TABLE people (id int, gone int, email text, shout text GENERATED ALWAYS AS (upper(email)) STORED,
  size int GENERATED ALWAYS AS (length(note)) STORED, note text);
ALTER TABLE people DROP COLUMN gone;
CREATE TABLE child (extra text) INHERITS (people);
CREATE TABLE measured (id int, who text) PARTITION BY RANGE (id);
CREATE TABLE measured_1 PARTITION OF measured FOR VALUES FROM (1) TO (10);
CREATE TABLE measured_2 PARTITION OF measured FOR VALUES FROM (10) TO (20);
CREATE VIEW one AS SELECT id FROM people;
CREATE VIEW two AS SELECT id FROM one;
CREATE VIEW clean AS SELECT relname FROM pg_class;
CREATE FUNCTION peek() RETURNS text LANGUAGE sql AS 'SELECT 1::text';
CREATE FUNCTION rowish(people) RETURNS text LANGUAGE sql AS 'SELECT 1::text';
CREATE FUNCTION anyish(anyelement, int DEFAULT 1) RETURNS text LANGUAGE sql AS 'SELECT 1::text';
CREATE FUNCTION scalar(int) RETURNS text LANGUAGE sql AS 'SELECT 1::text';
CREATE FUNCTION twice(int, int) RETURNS text LANGUAGE sql AS 'SELECT 1::text';
CREATE VIEW opaque AS SELECT peek();
CREATE VIEW over AS SELECT * FROM opaque;
CREATE OPERATOR @@@ (FUNCTION = twice, LEFTARG = int, RIGHTARG = int);
CREATE VIEW operated AS SELECT 1 @@@ 2;
CREATE TYPE mood AS (a text);
CREATE FUNCTION moody(int) RETURNS mood LANGUAGE sql AS 'SELECT NULL::books.mood';
CREATE CAST (int AS mood) WITH FUNCTION moody(int);
CREATE TABLE ruled (id int);
CREATE RULE r AS ON INSERT TO ruled DO ALSO DELETE FROM people;
RESET ROLE;
CREATE EXTENSION citext SCHEMA books;
CREATE EXTENSION dblink SCHEMA books;
"""
LABELS = (
    ColumnLabel("pii.email", "books", "people", "email"), ColumnLabel("pii.who", "books", "measured_1", "who"),
    ColumnLabel("lost", "books", "people", "no_such_column"), ColumnLabel("lost", "books", "no_such_table", "email"),
)


def read(port: int, labels: tuple[ColumnLabel, ...] = LABELS) -> Catalogue:
    return load_catalogue(host="127.0.0.1", port=port, credential=Credential("app"), database="shop", ssl_context=None,
                          labels=labels, version=7)


@pytest.fixture(scope="module")
def books(port: int) -> Catalogue:
    subprocess.run(["psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-d", "shop", "-v",
                    "ON_ERROR_STOP=1", "-f", "-"], input=SQL, text=True, check=True, stdout=subprocess.DEVNULL)
    return read(port)


def labels(books: Catalogue, name: str) -> dict[str, str]:
    relation = books.find("books", name)
    assert relation is not None
    return {column: label.label for column, label in relation.labels.items()}


def test_labels_go_where_the_values_go(books: Catalogue) -> None:
    assert labels(books, "people") == {"email": "pii.email", "shout": "pii.email", "no_such_column": "lost"}
    assert labels(books, "child") == {"email": "pii.email", "shout": "pii.email"}
    assert labels(books, "measured_1") == labels(books, "measured") == labels(books, "measured_2") == {"who": "pii.who"}
    assert labels(books, "ruled") == {}


def test_attribute_numbers_are_the_servers(books: Catalogue) -> None:
    people = books.find("books", "people")
    assert people is not None
    assert people.columns == {"id": 1, "email": 3, "shout": 4, "size": 5, "note": 6}
    known, label = books.column(people.oid, 3)
    assert known
    assert label is not None
    assert label.label == "pii.email"
    assert books.column(people.oid, 1) == (True, None)
    assert books.column(0, 0) == books.column(1259, 1) == (True, None)
    assert books.column(999_999_999, 1) == (False, None)


def test_a_label_that_names_nothing_is_reported(books: Catalogue) -> None:
    assert books.warnings == (
        "label lost: there is no column books.people.no_such_column",
        "label lost: there is no column books.no_such_table.email")


def test_views_and_rules_have_sources(books: Catalogue) -> None:
    for name in ("one", "two", "ruled"):
        relation = books.find("books", name)
        assert relation is not None
        assert "people.email" in books.labelled_sources(relation), name
        assert not books.is_opaque(relation)
    for name in ("opaque", "over", "operated"):
        relation = books.find("books", name)
        assert relation is not None
        assert books.is_opaque(relation), name
    clean = books.find("books", "clean")
    assert clean is not None
    assert not books.labelled_sources(clean)
    assert not books.is_opaque(clean)


def test_what_users_made_to_be_called(books: Catalogue) -> None:
    own = {name for schema, name in books.functions if schema == "books"}
    assert {"peek", "rowish", "anyish", "scalar", "twice", "moody", "dblink", "dblink_exec"} <= own
    assert not own & {"replace", "max", "split_part", "strpos"}                # citext's: as harmless as those
    assert {name for schema, name in books.row_functions if schema == "books"} >= {"rowish", "anyish"}
    assert not {"scalar", "twice", "peek"} & {name for _, name in books.row_functions}
    assert ("books", "@@@") in books.operators
    assert not {name for _, name in books.operators} & {"=", "<", "~~"}        # citext's
    assert ("books", "mood") in books.casts


def test_a_catalogue_that_is_too_big_is_refused(books: Catalogue, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "QUERIES", (("SELECT 1 FROM pg_catalog.generate_series(1, 11)", 10),))
    with pytest.raises(ValueError, match="more than 10"):
        read(port)


# What functions.txt leaves out, of all of PostgreSQL 15: `weir` makes it anew with this pattern.
REFUSED = re.compile(r"""(
  pg_read_.* | pg_ls_.* | pg_stat_file | pg_logdir_ls | pg_current_logfile | pg_hba_file_rules | pg_ident_file.*
  | pg_show_all_file_settings | pg_config                                                               # files
  | pg_terminate_backend | pg_cancel_backend | pg_reload_conf | pg_rotate_logfile.* | pg_log_backend.*  # others
  | pg_advisory_.*lock.* | pg_try_advisory_.* | pg_notify | pg_stat_get_activity | pg_stat_get_backend.*
  | pg_lock_status
  | pg_stat_reset.* | pg_stat_clear_snapshot | pg_stat_force.* | pg_get_backend.* | pg_get_shmem.* | pg_prepared_xact
  | lo_.* | loread | lowrite | .*query_to_xml.* | table_to_xml.* | schema_to_xml.* | database_to_xml.* | cursor_to_xml.*
  | ts_stat | ts_rewrite | set_config | setval | pg_extension_config_dump | binary_upgrade_.*           # SQL, settings
  | pg_switch_wal | pg_start_backup | pg_stop_backup | pg_backup.* | pg_is_in_backup | pg_promote | pg_create_.*
  | pg_drop_.* | pg_replication_.* | pg_logical_.* | pg_copy_.* | pg_wal_replay_(pause|resume) | pg_export_snapshot
  | pg_get_replication.* | pg_get_wal.* | pg_stat_get_wal.* | pg_stat_get_subscription.* | pg_stat_get_replication.*
  | pg_stat_get_progress_info | pg_control_.* | pg_import_system_collations | pg_nextoid | pg_cursor | pg_mcv_list_items
  | gin_clean_pending_list | brin_.*summar.* | fmgr_.* | shell_.* | plpgsql_.* | currtid.* | amvalidate
  | (array|domain|multirange|range|record)_(in|recv)                      # a domain's check, of a type by its number
  | pg_get_multixact.* | pg_stat_have_stats | pg_sequence_last_value | pg_stop_making_pinned_objects
)""", re.VERBOSE)
UNLOCKING = {"pg_advisory_unlock", "pg_advisory_unlock_all", "pg_advisory_unlock_shared"}      # of the session's own


def test_the_list_of_harmless_functions_is_the_servers_less_what_is_refused(port: int) -> None:
    answer = subprocess.run(
        ["psql", "-X", "-A", "-t", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-d", "postgres", "-c",
         "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace IN ('pg_catalog'::regnamespace, "
         "'information_schema'::regnamespace) AND prokind <> 'p' "
         "AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)"],
        check=True, capture_output=True, text=True)
    every = set(answer.stdout.split())
    kept = {name for name in every if not REFUSED.fullmatch(name)} | UNLOCKING
    assert harmless() == kept, (sorted(harmless() - kept), sorted(kept - harmless()))


def test_files_and_sql_are_not_harmless() -> None:
    for name in ("pg_read_file", "pg_ls_dir", "query_to_xml", "lo_import", "lo_export", "set_config", "ts_stat",
                 "dblink", "pg_terminate_backend", "pg_read_binary_file", "database_to_xml", "setval"):
        assert name not in harmless()
    assert is_large_object("lo_get")
    assert not is_large_object("lo_import")
    assert not is_large_object("lo_export")
