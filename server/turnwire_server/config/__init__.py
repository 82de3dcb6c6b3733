"""What an operator says: the settings of a server, and its profiles."""
