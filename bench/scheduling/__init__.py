"""Who trains what, where and when: stacks, costs, slots, the schedule, its simulation."""
