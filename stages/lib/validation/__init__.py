"""What is known of the data before it is used: features, duplicates, outliers, drift, expectations."""
