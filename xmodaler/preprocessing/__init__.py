"""From what data sets publish, and from pictures and videos, to what the models read."""
