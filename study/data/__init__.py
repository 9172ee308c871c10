"""From files to batches: folders of images, splits, pictures, data sets, augmentation.

What a network is and how it is trained is in `study.models` and `study.training`.
"""
