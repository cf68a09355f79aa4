# VQAv2 at 480 pixels. Below `data_root` are train2014/, val2014/ and test2015/ of COCO, the v2_*.json files of
# https://visualqa.org/download.html, and answer2label.txt, which tools/dataset_converters/vqa_answers.py writes.
# Training is on train2014 and on val2014 but for 1000 images, with which the model is validated.
_base_ = 'beit3_statistics.py'
data_root = 'data/vqav2'
tokenizer = _base_.tokenizer
answers = f'{data_root}/answer2label.txt'
train_pipeline = [
    dict(type='mmbeit.SeedTransforms'),
    dict(type='mmbeit.LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='RandomResizedCrop', scale=480, crop_ratio_range=(0.5, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmbeit.RandAugment'),  # overflow='wrap' makes the official mistakes, too
    dict(type='mmbeit.TokenizeText', key='question', tokenizer=tokenizer),
    dict(type='mmbeit.ScoreAnswers', answers=answers),
    dict(type='PackInputs', algorithm_keys=['text_ids'], meta_keys=['img_path', 'question_id']),
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),  # by this name inference finds it
    dict(type='Resize', scale=(480, 480), backend='pillow', interpolation='bicubic'),
    dict(type='mmbeit.TokenizeText', key='question', tokenizer=tokenizer),
    dict(type='PackInputs', algorithm_keys=['question', 'text_ids'], meta_keys=['img_path', 'question_id']),
]
val_pipeline = [
    *test_pipeline[:-1],
    dict(type='mmbeit.ScoreAnswers', answers=answers),
    dict(
        type='PackInputs',
        algorithm_keys=['question', 'text_ids', 'gt_answer', 'gt_answer_weight', 'answer_type'],
        meta_keys=['img_path', 'question_id'],
    ),
]
train2014 = dict(
    type='mmbeit.VQAv2',
    data_root=data_root,
    data_prefix='train2014',
    question_file='v2_OpenEnded_mscoco_train2014_questions.json',
    ann_file='v2_mscoco_train2014_annotations.json',
    answers=answers,
    pipeline=train_pipeline,
)
val2014 = dict(
    type='mmbeit.VQAv2',
    data_root=data_root,
    data_prefix='val2014',
    question_file='v2_OpenEnded_mscoco_val2014_questions.json',
    ann_file='v2_mscoco_val2014_annotations.json',
)
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='mmbeit.SeededSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmbeit.ConcatDataset',
        datasets=[train2014, dict(images='rest', answers=answers, pipeline=train_pipeline, **val2014)],
    ),
)
val_dataloader = dict(
    batch_size=24,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(images='held_out', pipeline=val_pipeline, test_mode=True, **val2014),
)
test_dataloader = dict(
    batch_size=24,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmbeit.VQAv2',
        data_root=data_root,
        data_prefix='test2015',
        question_file='v2_OpenEnded_mscoco_test2015_questions.json',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = [dict(type='mmbeit.VQAAccuracy'), dict(type='mmbeit.VQAScore')]
# For https://eval.ai/web/challenges/challenge-page/830, which has the answers.
test_evaluator = dict(type='ReportVQA', file_path='work_dirs/vqav2_test2015.json')
