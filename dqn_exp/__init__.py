"""Value-based deep reinforcement learning with seeds as a tensor dimension."""
