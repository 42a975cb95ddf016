"""The way to Google's REST APIs, and what is made of their answers and errors."""
