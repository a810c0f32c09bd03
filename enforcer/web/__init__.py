"""What approvers and auditors see in a browser.  `shown` and `pages` are pure: what a page shows, and its HTML."""
