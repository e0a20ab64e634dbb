"""scd_datasets: recordings in, checks, the window store that training reads, and LeRobotDatasets out."""
