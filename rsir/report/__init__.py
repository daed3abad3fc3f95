"""What a run came to, for people to look at."""
