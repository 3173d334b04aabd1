"""What is asked of every request before a route sees it, and who is asking."""
