"""Telling approvers elsewhere: the process that does it, what it is told, links by which they answer, who they are."""
