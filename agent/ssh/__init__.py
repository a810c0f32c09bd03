"""SSH on the root side: host keys and user authorities of Weir's, and files by which hosts are known."""
