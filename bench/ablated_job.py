"""The job without consent checks (:mod:`bench.ablation`), submitted with `-pym bench.ablated_job --settings FILE`.

It is shipped in a zip of its own beside the product's, which does not depend on it.
"""

import sys
from typing import Final

from bench.ablation import UncheckedOperator, open_personalise_parts, with_others
from jobs import personalise

build: Final = with_others(
    personalise.build, PersonaliseOperator=UncheckedOperator, open_personalise_parts=open_personalise_parts
)
wire: Final = with_others(personalise.wire, build=build)
assemble: Final = with_others(personalise.assemble, wire=wire)
submit: Final = with_others(personalise.submit, assemble=assemble)
main: Final = with_others(personalise.main, submit=submit)

if __name__ == "__main__":
    main(sys.argv[1:])
