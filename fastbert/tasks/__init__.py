"""Tasks for a pretrained encoder: classes, numbers, tags and answers.

`examples` reads and checks files, `features` turns them into token ids, `model` puts a head on an encoder, `training`
and `scores` fine-tune and evaluate, `prediction` predicts. The commands are `python -m fastbert.finetune` and
`python -m fastbert.predict`.
"""
