"""A run: hands trainings to slots, takes their results to the store, shows how far it is."""
