"""Annotation formats: how VOC, COCO, LabelMe and mask folders say what is on a picture."""
