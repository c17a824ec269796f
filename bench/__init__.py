"""The spine of the suite: grid, planning, trainer, runner, tracking, command line."""
