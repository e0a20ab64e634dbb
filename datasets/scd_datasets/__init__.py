"""What is learned from: recording, LeRobotDataset in and out, checks, and the store that training reads."""
