"""Labelled pictures, inspected, as what confidences are fitted on."""
