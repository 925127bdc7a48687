"""What people read: progress, tables, pictures, and what is installed."""
