"""Sentences for measuring an encoder when no text is given: eight topics, six each, from paraphrase to distant cousin.

Near neighbours inside a topic make the retrieval order a sharp test; the topics keep it from being a trivial one.
"""

SENTENCES: tuple[str, ...] = (
    # cooking
    "Let the dough rest for an hour before you roll it out.",
    "The pastry should be left alone for sixty minutes, then flattened with a rolling pin.",
    "How long does bread need to rise?",
    "A pinch of salt brings out the sweetness of ripe tomatoes.",
    "Simmer the lentils with cumin, garlic and a bay leaf until soft.",
    "My grandmother never measured anything when she baked.",
    # weather and nature
    "Heavy rain is expected in the north, with thunder towards the evening.",
    "The forecast says storms will reach the northern counties tonight.",
    "Will I need an umbrella tomorrow?",
    "After the drought the river ran again, and herons came back to its banks.",
    "Snow had covered the pass, so the road was closed until spring.",
    "Bees find their way home by the angle of the sun.",
    # computers
    "The program crashed because it read past the end of the buffer.",
    "An out-of-bounds access made the application stop.",
    "How do I list all files in a directory from the command line?",
    "Compilers may reorder instructions as long as the result stays the same.",
    "A hash table finds a key in constant time on average.",
    "Please restart the server after changing its configuration.",
    # medicine
    "The patient complains of a dull pain in the lower back.",
    "She has had an ache at the base of her spine for a week.",
    "Which vaccinations are recommended for travellers to the tropics?",
    "Antibiotics do not help against a virus.",
    "The nurse took his blood pressure twice, to be sure.",
    "Sleep too little and your reactions slow down.",
    # money and work
    "The central bank raised interest rates by a quarter of a point.",
    "Borrowing became more expensive after the bank's decision.",
    "What is the deadline for the tax return?",
    "The company will pay a smaller dividend this year.",
    "Our team meets on Tuesday mornings to plan the week.",
    "He handed in his notice and opened a bicycle shop.",
    # travel
    "The train to the coast leaves from platform four at half past nine.",
    "At 9:30 there is a departure for the seaside, on track 4.",
    "Is there a cheap hotel near the old harbour?",
    "We walked along the city wall until the lamps were lit.",
    "Passengers are asked to keep their passports ready.",
    "The ferry was late, and nobody seemed to mind.",
    # sport and music
    "The goalkeeper saved a penalty in the last minute.",
    "With seconds to go, the keeper stopped the spot kick.",
    "Who won the hundred metres at the last games?",
    "She practises the cello for three hours every day.",
    "The orchestra tuned, the lights went down, and everyone fell silent.",
    "A marathon is a little more than forty-two kilometres long.",
    # science
    "Light from the nearest star takes more than four years to reach us.",
    "It takes over four years for the glow of our closest stellar neighbour to arrive.",
    "Why is the sky blue?",
    "Iron rusts when water and oxygen meet on its surface.",
    "The telescope's mirror was polished to a fraction of a wavelength.",
    "A model is useful if its predictions can turn out to be wrong.",
)
