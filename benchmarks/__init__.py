"""One program for each measured claim. Each prints a JSON object as its last line; docs/measurements has what came out."""
