"""What is learned from: recording, LeRobotDataset in and out, checks, and the window store that training reads."""
