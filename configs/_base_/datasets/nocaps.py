# Training on captions of COCO, evaluation on NoCaps, at 480 pixels. Below `nocaps_root` are val/, test/,
# nocaps_val_4500_captions.json and nocaps_test_image_info.json of https://nocaps.org. The captions of the test are on a
# server: to write a file for it, give the test the split 'test' and mmbeit.ReportCaptions alone.
_base_ = 'coco_caption.py'
nocaps_root = 'data/nocaps'
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmbeit.NoCaps',
        data_root=nocaps_root,
        data_prefix='val',
        ann_file='nocaps_val_4500_captions.json',
        pipeline=_base_.test_pipeline,
        test_mode=True,
    )
)
test_dataloader = val_dataloader
# The captions of the annotation file, which come with the images.
val_evaluator = dict(ann_file=None)
test_evaluator = [
    dict(type='mmbeit.CaptionScores'),
    dict(type='mmbeit.ReportCaptions', file_path='work_dirs/nocaps_val.json'),
]
