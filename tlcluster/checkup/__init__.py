"""What is measured on a node before it trains, and what a measurement means."""
