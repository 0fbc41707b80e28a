"""The scheduler's plugins, one file each; `interface` says what a plugin is."""
