"""What an SSH exec command line does: `analyse_line`.  Pure.

A line is read twice, by a lexer of our own and by tree-sitter-bash; what they do not read alike, and what login shells
do not read alike (dash, bash, zsh, fish), is said to be opaque.  Whoever adds to what can be told: it has to hold in
every one of them, for nobody knows which one the account has.
"""
