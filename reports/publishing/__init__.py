"""From a report's figures to files that leave the building: HTML, PDF, CSV, XLSX, JSON; and their freezing."""
