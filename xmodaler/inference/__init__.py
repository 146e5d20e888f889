"""Using a trained model: ``load(folder)`` gives an object that captions, answers or retrieves."""

from xmodaler.inference.answerer import Answer, Answerer
from xmodaler.inference.captioner import Caption, Captioner
from xmodaler.inference.chooser import Choice, Chooser
from xmodaler.inference.comparer import Comparer, Comparison
from xmodaler.inference.fusion_retriever import FusionRetriever
from xmodaler.inference.grounder import Grounder, Grounding
from xmodaler.inference.loading import load
from xmodaler.inference.pair_retriever import PairRetriever
from xmodaler.inference.ranking_answerer import RankingAnswerer
from xmodaler.inference.retriever import Hit, Ranking
from xmodaler.inference.vector_retriever import VectorRetriever

__all__ = [
    "Answer",
    "Answerer",
    "Caption",
    "Captioner",
    "Choice",
    "Chooser",
    "Comparer",
    "Comparison",
    "FusionRetriever",
    "Grounder",
    "Grounding",
    "Hit",
    "PairRetriever",
    "Ranking",
    "RankingAnswerer",
    "VectorRetriever",
    "load",
]
