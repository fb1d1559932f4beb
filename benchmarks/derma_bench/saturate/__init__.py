"""The highest arrival rate that our service bears."""
