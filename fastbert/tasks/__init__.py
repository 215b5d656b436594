"""What a pretrained encoder is used for: classes, numbers, tags and answers.

`records` reads files, `examples` checks them, `features` turns them into token ids, `model` puts a head on an encoder,
`training` and `scores` fine-tune and measure, `prediction` answers. The commands are `python -m fastbert.finetune` and
`python -m fastbert.predict`.
"""
