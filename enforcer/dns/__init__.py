"""Weir's resolver: names of targets and egress entries for crews, nothing for anybody else."""
