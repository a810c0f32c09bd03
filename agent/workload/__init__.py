"""What runs as a crew: who may start what, the launcher, the sandbox, containers, and what is known of a process."""
