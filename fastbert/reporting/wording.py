"""What the report says, in English and Portuguese."""

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Report of {names}",
        "lead": "How this model was trained, what it learned, and how it reads a sentence.",
        "lead_several": "How these models were trained, what they learned, and where they differ.",
        "loss": "Loss", "loss_note": "nats per masked token", "perplexity": "Perplexity", "accuracy": "Masked accuracy",
        "throughput": "Throughput", "throughput_note": "tokens per second", "learning_rate": "Learning rate",
        "learning_rate_note": "share of the peak", "gradient": "Gradient norm", "next_sentence": "Next sentence right",
        "training": "training", "evaluation": "evaluation",
        "tokens_seen": "Tokens seen",
        "time": "Time", "steps": "Steps", "parameters": "Parameters", "masked_tokens": "Masked tokens asked",
        "curves": "Learning",
        "curves_text": "Strong lines are of the evaluation text; the pale one is of the training text, where more is "
        "hidden and the model still changes. Across: millions of tokens seen.",
        "curves_several_text": "Loss, perplexity and accuracy are of the evaluation text. Across: millions of "
        "tokens seen.",
        "no_curves": "This run has not recorded enough to draw.",
        "unfinished": "This run has not finished: it has no final evaluation.",
        "knows": "What it knows",
        "knows_text": "Masked words of the evaluation text guessed right at the first try, by how frequent the piece "
        "is in the corpus (its rank) and by its part of the word; and how often the model finds a real sentence "
        "likelier than the same words out of place (chance is half).",
        "by_frequency": "By rank in the corpus", "by_part": "By part of the word", "pairs": "Prefers the real "
        "sentence to",
        "whole": "whole word", "first": "first piece", "continuation": "later piece",
        "two words exchanged": "two words exchanged", "all words shuffled": "all words shuffled", "of": "of",
        "guesses": "What was hidden, what it guessed",
        "guesses_text": "Sentences of the evaluation text with one word hidden.",
        "was": "was",
        "pieces": "How it splits a text",
        "pieces_text": "Each box is a piece of the vocabulary; a box joined to the one before continues its word.",
        "unknown": "unknown",
        "attention": "Where it looks",
        "attention_text": "Each row is a token, each column what it looks at, and a stronger colour more "
        "attention. Choose a layer and head, or point at a square.",
        "layer": "Layer", "head": "Head", "looks_at": "“{from}” gives “{to}” {share} of its attention.",
        "average": "average of the heads",
        "map": "Its words in the plane",
        "map_text": "The {count} most frequent words, by the two directions in which their embeddings differ "
        "most. These "
        "hold {share} of the differences, so words far apart here differ, but near ones need not be alike.",
        "compare": "The runs side by side",
        "compare_text": "Final figures, and the settings that differ.",
        "run": "Run",
        "machine": "Machine and settings",
        "hardware": "Hardware", "versions": "Versions", "settings": "Settings", "command": "Command",
        "settings_text": "Settings that differ from the defaults are strong.",
        "started": "Started", "commit": "Commit", "architecture": "Model",
        "no_model": "The model itself could not be read, so nothing is shown of it: {reason}",
        "made": "Made by fastbert {version} from the files of the run; this page asks the network for nothing.",
    },
    "pt": {
        "title": "Relatório de {names}",
        "lead": "Como este modelo foi treinado, o que aprendeu e como lê uma frase.",
        "lead_several": "Como estes modelos foram treinados, o que aprenderam e em que diferem.",
        "loss": "Perda", "loss_note": "nats por token mascarado", "perplexity": "Perplexidade",
        "accuracy": "Acerto nas máscaras", "throughput": "Velocidade", "throughput_note": "tokens por segundo",
        "learning_rate": "Taxa de aprendizado", "learning_rate_note": "fração do pico", "gradient": "Norma do "
        "gradiente",
        "next_sentence": "Acerto da frase seguinte", "training": "treino",
        "evaluation": "avaliação", "tokens_seen": "Tokens vistos", "time": "Tempo", "steps": "Passos",
        "parameters": "Parâmetros", "masked_tokens": "Máscaras perguntadas",
        "curves": "O aprendizado",
        "curves_text": "As linhas fortes são do texto de avaliação; a clara é do texto de treino, em que se "
        "esconde mais "
        "e o modelo ainda muda. Na horizontal: milhões de tokens vistos.",
        "curves_several_text": "Perda, perplexidade e acertos são do texto de avaliação. Na horizontal: milhões de "
        "tokens vistos.",
        "no_curves": "Esta execução não registrou o bastante para um gráfico.",
        "unfinished": "Esta execução não terminou: falta a avaliação final.",
        "knows": "O que ele sabe",
        "knows_text": "Palavras mascaradas do texto de avaliação, acertadas de primeira, conforme a frequência "
        "da peça no "
        "corpus (sua posição) e a parte da palavra; e quantas vezes o modelo acha a frase real mais provável que as "
        "mesmas palavras fora de lugar (ao acaso seria metade).",
        "by_frequency": "Por posição no corpus", "by_part": "Por parte da palavra", "pairs": "Prefere a frase real a",
        "whole": "palavra inteira", "first": "primeira peça", "continuation": "peça seguinte",
        "two words exchanged": "duas palavras trocadas", "all words shuffled": "palavras embaralhadas", "of": "de",
        "guesses": "O que se escondeu, o que ele adivinhou",
        "guesses_text": "Frases do texto de avaliação com uma palavra escondida.",
        "was": "era",
        "pieces": "Como ele divide um texto",
        "pieces_text": "Cada caixa é uma peça do vocabulário; a que está colada à anterior continua a palavra.",
        "unknown": "desconhecida",
        "attention": "Para onde ele olha",
        "attention_text": "Cada linha é um token, cada coluna o que ele olha, e quanto mais forte a cor, mais "
        "atenção. Escolha uma camada e uma cabeça, ou aponte para um quadrado.",
        "layer": "Camada", "head": "Cabeça", "looks_at": "“{from}” dá a “{to}” {share} de sua atenção.",
        "average": "média das cabeças",
        "map": "Suas palavras no plano",
        "map_text": "As {count} palavras mais frequentes, pelas duas direções em que seus vetores mais diferem. Elas "
        "guardam {share} das diferenças: palavras distantes aqui diferem, mas as próximas podem não ser parecidas.",
        "compare": "As execuções lado a lado",
        "compare_text": "Números finais e as opções que diferem.",
        "run": "Execução",
        "machine": "Máquina e opções",
        "hardware": "Máquina", "versions": "Versões", "settings": "Opções", "command": "Comando",
        "settings_text": "Opções diferentes do padrão aparecem em negrito.",
        "started": "Início", "commit": "Commit", "architecture": "Modelo",
        "no_model": "O próprio modelo não pôde ser lido, e por isso nada dele é mostrado: {reason}",
        "made": "Feito por fastbert {version} a partir dos arquivos da execução; esta página não pede nada à rede.",
    },
}  # fmt: skip
