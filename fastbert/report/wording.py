"""The texts of the report, in English and Portuguese."""

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Report of {names}",
        "lead": "How this model was trained, what it learned, and how it processes a sentence.",
        "lead_several": "How these models were trained, what they learned, and how they differ.",
        "loss": "Loss", "loss_note": "nats per masked token", "perplexity": "Perplexity", "accuracy": "Masked accuracy",
        "throughput": "Throughput", "throughput_note": "tokens per second", "learning_rate": "Learning rate",
        "learning_rate_note": "fraction of the peak", "gradient": "Gradient norm",
        "next_sentence": "Next-sentence accuracy",
        "training": "training", "tokens_seen": "Tokens seen", "time": "Time", "steps": "Steps",
        "parameters": "Parameters",
        "curves": "Training curves",
        "curves_text": "Solid lines: evaluation text. Pale line: training text, where more tokens are masked and the "
        "model is still changing. Horizontal axis: millions of tokens seen.",
        "curves_several_text": "Loss, perplexity and accuracy are measured on the evaluation text. Horizontal axis: "
        "millions of tokens seen.",
        "no_curves": "This run has not recorded enough to plot.",
        "unfinished": "This run has not finished: it has no final evaluation.",
        "knows": "What it knows",
        "knows_text": "Accuracy on masked tokens of the evaluation text, by frequency rank in the corpus and by part "
        "of the word; and how often the model finds a sentence more probable than the same words out of order (chance "
        "is 50 %).",
        "by_frequency": "By frequency rank", "by_part": "By part of the word", "pairs": "Prefers the "
        "original over",
        "whole": "whole word", "first": "first token", "continuation": "later token",
        "two words exchanged": "two words swapped", "all words shuffled": "all words shuffled", "of": "of",
        "guesses": "Masked words and predictions",
        "guesses_text": "Sentences of the evaluation text with one word masked.",
        "pieces": "Tokenization",
        "pieces_text": "Each box is a token; a box joined to the previous one continues its word.",
        "unknown": "unknown",
        "attention": "Attention",
        "attention_text": "Each row is a token, each column a token it attends to; a stronger colour means more "
        "attention. Choose a layer and a head, or point at a square.",
        "layer": "Layer", "head": "Head", "looks_at": "“{from}” gives “{to}” {share} of its attention.",
        "average": "average of the heads",
        "map": "Word map",
        "map_text": "The {count} most frequent words, on the first two principal components of their embeddings. "
        "These explain {share} of the variance: words far apart here differ, but near ones need not be similar.",
        "compare": "Comparison",
        "compare_text": "Final results, and the settings that differ.",
        "run": "Run",
        "machine": "Machine and settings",
        "hardware": "Hardware", "versions": "Versions", "settings": "Settings", "command": "Command",
        "settings_text": "Settings that differ from the defaults are in bold.",
        "started": "Started", "commit": "Commit", "architecture": "Model",
        "no_model": "The model could not be read, so its sections are missing: {reason}",
        "made": "Made by fastbert {version} from the files of the run; this page makes no network requests.",
    },
    "pt": {
        "title": "Relatório de {names}",
        "lead": "Como este modelo foi treinado, o que aprendeu e como processa uma frase.",
        "lead_several": "Como estes modelos foram treinados, o que aprenderam e quais são as diferenças.",
        "loss": "Perda", "loss_note": "nats por token mascarado", "perplexity": "Perplexidade",
        "accuracy": "Acurácia nas máscaras", "throughput": "Velocidade", "throughput_note": "tokens por segundo",
        "learning_rate": "Taxa de aprendizado", "learning_rate_note": "fração do pico", "gradient": "Norma do "
        "gradiente",
        "next_sentence": "Acurácia da próxima frase", "training": "treino",
        "tokens_seen": "Tokens vistos", "time": "Tempo", "steps": "Passos", "parameters": "Parâmetros",
        "curves": "Curvas de treino",
        "curves_text": "Linhas fortes: texto de avaliação. Linha clara: texto de treino, em que mais tokens são "
        "mascarados e o modelo ainda está mudando. Eixo horizontal: milhões de tokens vistos.",
        "curves_several_text": "Perda, perplexidade e acurácia são medidas no texto de avaliação. Eixo horizontal: "
        "milhões de tokens vistos.",
        "no_curves": "Esta execução não registrou dados suficientes para um gráfico.",
        "unfinished": "Esta execução não terminou: falta a avaliação final.",
        "knows": "O que ele sabe",
        "knows_text": "Acurácia nos tokens mascarados do texto de avaliação, por frequência no corpus (posição no "
        "ranking) e por parte da palavra; e quantas vezes o modelo considera uma frase mais provável do que as mesmas "
        "palavras fora de ordem (o acaso daria 50 %).",
        "by_frequency": "Por frequência no corpus", "by_part": "Por parte da palavra",
        "pairs": "Prefere a frase original a",
        "whole": "palavra inteira", "first": "primeiro token", "continuation": "token seguinte",
        "two words exchanged": "duas palavras trocadas", "all words shuffled": "palavras embaralhadas", "of": "de",
        "guesses": "Palavras mascaradas e previsões",
        "guesses_text": "Frases do texto de avaliação com uma palavra mascarada.",
        "pieces": "Tokenização",
        "pieces_text": "Cada caixa é um token; uma caixa colada à anterior continua a mesma palavra.",
        "unknown": "desconhecido",
        "attention": "Atenção",
        "attention_text": "Cada linha é um token e cada coluna, um token para o qual ele olha; quanto mais forte a "
        "cor, maior a atenção. Escolha uma camada e uma cabeça ou aponte para um quadrado.",
        "layer": "Camada", "head": "Cabeça", "looks_at": "“{from}” dá a “{to}” {share} da sua atenção.",
        "average": "média das cabeças",
        "map": "Mapa das palavras",
        "map_text": "As {count} palavras mais frequentes, nos dois primeiros componentes principais dos embeddings. "
        "Eles explicam {share} da variância: palavras distantes aqui diferem, mas as próximas podem não ser parecidas.",
        "compare": "Comparação",
        "compare_text": "Resultados finais e as opções que diferem.",
        "run": "Execução",
        "machine": "Máquina e opções",
        "hardware": "Máquina", "versions": "Versões", "settings": "Opções", "command": "Comando",
        "settings_text": "Opções diferentes do padrão aparecem em negrito.",
        "started": "Início", "commit": "Commit", "architecture": "Modelo",
        "no_model": "Não foi possível ler o modelo, por isso faltam as seções sobre ele: {reason}",
        "made": "Feito pelo fastbert {version} com os arquivos da execução; esta página não acessa a rede.",
    },
}  # fmt: skip
