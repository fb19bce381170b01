"""Data sets as rows of pictures and truth: DeepPCB, COCO, VOC, masks, LabelMe, research sets, scenes."""
