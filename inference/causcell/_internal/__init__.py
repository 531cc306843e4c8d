"""Small tools that the rooms of the client share; none is public."""
