"""The figures of the report: records and metrics → SVG and PNG."""
