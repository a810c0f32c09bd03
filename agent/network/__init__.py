"""Network namespaces of workloads, the sockets at which crews find Weir, and the names that lead to targets."""
