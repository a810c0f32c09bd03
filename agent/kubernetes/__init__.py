"""What opens a cluster for Weir, and how a workload's clients know Weir in the cluster's place."""
