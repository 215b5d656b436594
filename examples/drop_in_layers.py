"""A Hugging Face BERT and an nn.TransformerEncoder: the same outputs and gradients with fastbert's ops inside."""

import torch
import transformers

import fastbert

config = transformers.BertConfig(num_hidden_layers=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
layer = torch.nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, activation="gelu", batch_first=True)
bert, encoder = transformers.BertModel(config), torch.nn.TransformerEncoder(layer, 2)
real = torch.arange(48) < torch.tensor([48, 30, 9])[:, None]  # (3, 48), False = padding
ids, states = torch.randint(1000, 30000, (3, 48)), torch.randn(3, 48, 256)
calls = {
    bert: lambda: bert(ids, attention_mask=real, return_dict=False)[0],
    encoder: lambda: encoder(states, src_key_padding_mask=~real),
}
for model, call in calls.items():
    weights = list(model.parameters())[:-2]  # BERT's last two are the pooler's, which plays no part here
    before = call(), *torch.autograd.grad(call().square().mean(), weights)
    print(report := fastbert.accelerate(model, impl="reference"))  # "auto", the default: the quickest here
    after = call(), *torch.autograd.grad(call().square().mean(), weights)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-5)
    print(f"{type(model).__name__}: at most {(after[0] - before[0]).abs().max():.0e} apart\n")
    report.undo()
