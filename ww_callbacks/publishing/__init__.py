"""Where a run's snapshots, alerts and verdict are sent."""
