"""A page in the browser on which a person drives a world: `scd-play`."""
