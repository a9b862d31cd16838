"""`laconic data`: check and fetch data sets, and show how workers share one."""
