"""Every text of a report, in English and Spanish, and how numbers and names are written in each."""
