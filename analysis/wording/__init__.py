"""All texts of a report in English and Spanish, and how each language writes numbers and names."""
