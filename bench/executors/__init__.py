"""Where trainings run: worker processes of this machine, or of a Ray cluster."""
