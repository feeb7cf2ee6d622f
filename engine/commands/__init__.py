"""What `engine …` can do: a module with a table COMMANDS, {name: function}, adds its commands."""
