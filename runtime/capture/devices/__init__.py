"""Cameras that are devices or streams: V4L2, CSI, RTSP, video files."""
