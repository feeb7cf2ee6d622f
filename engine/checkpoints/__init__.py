"""What a run leaves: steps, their record, packed runs."""
