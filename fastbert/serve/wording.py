"""The texts of the pages, in English and Portuguese; those of the report are used beside them."""

from fastbert.report.wording import WORDS as REPORT_WORDS

_WORDS: dict[str, dict[str, str]] = {
    "en": {
        "play": "Play", "watch": "Watch", "api": "API", "language": "Language", "model": "Model", "choose": "Choose",
        "skip": "Skip to the content",
        "text": "Text", "texts": "Texts, one per line", "go": "Show", "failed": "The server did not answer.",
        "working": "Working …",
        "fill": "Fill masks", "fill_text": "Write [MASK] where a word is missing. The bars are probabilities.",
        "joint": "Fill several masks together", "candidates": "Only these words, separated by commas",
        "mask_number": "Mask {number}", "together": "Together",
        "natural": "How natural", "natural_text": "How surprising each word is to the model, given all the others: the "
        "stronger the colour, the less it was expected. Compare two versions of a sentence.",
        "nats": "nats", "total": "{score} nats in all, pseudo-perplexity {perplexity}", "nothing": "Nothing to score.",
        "similar": "Similarity map", "similar_text": "The cosine of the texts’ vectors: 1 is the same direction.",
        "attention_play": "Attention", "generate": "Generate",
        "generate_text": "Continues a text by filling masks. A model trained with --objective diffusion does it best.",
        "length": "Tokens to add",
        "classify": "Classify", "classify_text": "What the model was fine-tuned to tell.",
        "first_text": "First text", "second_text": "Second text",
        "tag": "Find entities", "tag_text": "What the model was fine-tuned to find.", "no_entities": "No entities.",
        "answer": "Answer", "answer_text": "The model finds the answer in the text.", "question": "Question",
        "context": "Text with the answer", "no_answer": "(no answer)", "number": "Number",
        "runs": "Runs", "runs_text": "Choose one or several. The page follows them by itself.",
        "follow": "Follow", "live": "step {step} · {left} left", "live_steps": "step {step}",
        "finished": "finished", "waiting": "waiting for the first record", "lost": "Connection lost; trying again.",
        "no_runs": "No runs here.", "watch_lead": "Training runs, live.",
        "play_lead": "Try what {name} has learned.",
        "api_text": "Send JSON, get JSON. OpenAI’s clients work with the address of this server and /v1. The "
        "description in OpenAPI’s form is /openapi.json.", "required": "required", "default": "default",
        "key": "This server asks for a key", "key_label": "Key", "key_go": "Open", "key_wrong": "The key is wrong.",
        "example_mask": "The old man opened the [MASK] and left.",
        "example_natural": "The old man opened the door.\nThe old man opened the cloud.",
        "example_similar": "It rained all day.\nThe rain did not stop.\nThe cat sleeps on the bed.\nA kitten sleeps.",
        "example_generate": "Once upon a time",
    },
    "pt": {
        "play": "Experimentar", "watch": "Acompanhar", "api": "API", "language": "Idioma", "model": "Modelo",
        "choose": "Escolher", "skip": "Ir para o conteúdo",
        "text": "Texto", "texts": "Textos, um por linha", "go": "Mostrar", "failed": "O servidor não respondeu.",
        "working": "Calculando …",
        "fill": "Preencher máscaras", "fill_text": "Escreva [MASK] no lugar da palavra que falta. As barras são "
        "probabilidades.",
        "joint": "Preencher várias máscaras em conjunto", "candidates": "Só estas palavras, separadas por vírgulas",
        "mask_number": "Máscara {number}", "together": "Em conjunto",
        "natural": "Naturalidade", "natural_text": "Quanto cada palavra surpreende o modelo, dadas todas as outras: "
        "quanto mais forte a cor, menos ela era esperada. Compare duas versões de uma frase.",
        "nats": "nats", "total": "{score} nats no total, pseudoperplexidade {perplexity}",
        "nothing": "Nada para avaliar.",
        "similar": "Mapa de semelhança", "similar_text": "O cosseno dos vetores dos textos: 1 é a mesma direção.",
        "attention_play": "Atenção", "generate": "Gerar texto",
        "generate_text": "Continua um texto preenchendo máscaras. Modelos treinados com --objective diffusion fazem "
        "isso melhor.",
        "length": "Tokens a acrescentar",
        "classify": "Classificar", "classify_text": "O que o modelo foi ajustado para distinguir.",
        "first_text": "Primeiro texto", "second_text": "Segundo texto",
        "tag": "Encontrar entidades", "tag_text": "O que o modelo foi ajustado para encontrar.",
        "no_entities": "Nenhuma entidade.",
        "answer": "Responder", "answer_text": "O modelo encontra a resposta no texto.", "question": "Pergunta",
        "context": "Texto com a resposta", "no_answer": "(sem resposta)", "number": "Número",
        "runs": "Execuções", "runs_text": "Escolha uma ou várias. A página as acompanha sozinha.",
        "follow": "Acompanhar", "live": "passo {step} · faltam {left}", "live_steps": "passo {step}",
        "finished": "terminada", "waiting": "à espera do primeiro registro",
        "lost": "Conexão perdida; tentando de novo.",
        "no_runs": "Nenhuma execução aqui.", "watch_lead": "Treinos, ao vivo.",
        "play_lead": "Experimente o que {name} aprendeu.",
        "api_text": "Envie JSON, receba JSON. Os clientes da OpenAI funcionam com o endereço deste servidor e /v1. A "
        "descrição em OpenAPI está em /openapi.json.", "required": "obrigatório", "default": "padrão",
        "key": "Este servidor pede uma chave", "key_label": "Chave", "key_go": "Abrir",
        "key_wrong": "A chave está errada.",
        "example_mask": "O velho abriu a [MASK] e saiu.",
        "example_natural": "O velho abriu a porta.\nO velho abriu a nuvem.",
        "example_similar": "Choveu o dia todo.\nA chuva não parou.\nO gato dorme na cama.\nUm gatinho está dormindo.",
        "example_generate": "Era uma vez",
    },
}  # fmt: skip
WORDS = {language: REPORT_WORDS[language] | words for language, words in _WORDS.items()}
